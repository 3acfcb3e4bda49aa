# temporary stand-in by the lead: overwrite this file
class KafkaServer: pass
